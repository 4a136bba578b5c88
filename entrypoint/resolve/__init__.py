"""From a request and profile files to one plan. Pure, but for the environment that it is given."""
