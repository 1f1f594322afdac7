"""Small models, each covering one architecture or construct."""
