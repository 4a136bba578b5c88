"""The command `dsv4`: the only room that prints and exits."""
