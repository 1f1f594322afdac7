"""The models that tests share."""
