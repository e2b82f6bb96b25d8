"""A made-up hospital with a year behind it, played through the real line; every row of it says that it is simulated."""
