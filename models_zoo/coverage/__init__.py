"""Coverage: measure which axes of the zoo, torchvision and timm models can grow, and compare the grown models."""
