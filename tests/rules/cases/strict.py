"""Where rules refuse, or say less, than the numbers would allow: each operator by name, with the reason."""

from __future__ import annotations

_TRUTH = "truth values and whole numbers are not trained through"
_EVEN = "an even function would make equal halves of opposite ones; writers are equal by default, so nothing is gained"
_PARTLY = "odd in one operand alone, or in two together: not worth a flag of its own"
_SINGULAR = "an odd unit without twin is zero, and zero is singular here"
_NORM = "a norm divides a block of zeros by the root of epsilon: harmless for values, not for gradients in training"
_INDEX = "zeros have their extremum in the first place here; other kernels may say otherwise"

_NAMES: dict[str, str] = {
    _TRUTH: """__and__ __iand__ __or__ __ior__ __xor__ __ixor__ __lshift__ __ilshift__ __rshift__ __irshift__
        bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift gcd lcm to _to_copy
        logical_and logical_or logical_xor logical_not eq ne not_equal gt greater lt less isclose
        isfinite isinf isnan isneginf isposinf all any count_nonzero""",
    _EVEN: """abs absolute cos cosh square pow float_power sinc special_sinc i0 special_i0 special_i0e
        special_modified_bessel_i0 special_bessel_j0 special_spherical_bessel_j0 prod std std_mean var var_mean norm
        linalg_norm linalg_vector_norm special_chebyshev_polynomial_t special_chebyshev_polynomial_u
        special_hermite_polynomial_h special_hermite_polynomial_he special_legendre_polynomial_p
        det linalg_det cdist cosine_similarity""",
    _PARTLY: """atan2 arctan2 copysign fmod frexp heaviside hypot ldexp lerp nextafter floor_divide remainder
        xlogy special_xlogy special_xlog1py""",
    _SINGULAR: "div divide true_divide addcdiv reciprocal igamma igammac slogdet inverse",
    _NORM: "batch_norm instance_norm group_norm layer_norm rms_norm",
    _INDEX: "kthvalue max min argmax argmin adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    "a zero may be a negative one": "signbit",
    "a tensor of zeros that lacks the axis counts as equal halves": "add",
    "multiplied by the number 0": "mul",
    "clamped from both sides to one number": "clamp clip",
    "whether infinities are replaced by opposite numbers depends on the arguments": "nan_to_num",
    "a median of an odd number of units is odd": "median",
    "slopes of zero make it a relu": "prelu",
    "a number that pads the new axis itself leaves the halves as they are": "pad",
    "an empty slice": "slice",
    "a mask that is false at all new units chooses one operand there; those of models are copies": "where",
}

STRICT: dict[str, str] = {
    (name if "::" in name else f"aten::{name}"): reason for reason, names in _NAMES.items() for name in names.split()
}
