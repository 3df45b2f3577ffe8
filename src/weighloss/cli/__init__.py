"""The commands: their flags, the data that they load, and one file for each command."""
