"""Whether the tests notice when a line of the code is broken."""
