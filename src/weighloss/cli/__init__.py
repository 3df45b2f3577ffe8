"""The `weighloss` command: its flags, the data and model that they name, and one file for each subcommand."""
