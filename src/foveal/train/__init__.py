"""Training: image models and restoration networks, from pictures and clips to the weights of an installation."""
