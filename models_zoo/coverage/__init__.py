"""Coverage: what grows of the zoo, of torchvision's and of timm's models, counted and compared."""
