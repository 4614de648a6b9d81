"""What holds for every game and every model of the project."""
