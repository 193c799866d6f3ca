"""What data is: the five tables of the contract, how they are read, checked and described."""
