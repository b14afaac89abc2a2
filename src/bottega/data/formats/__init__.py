"""What a row of training data is: told from its keys, and made one of a few plain kinds."""
