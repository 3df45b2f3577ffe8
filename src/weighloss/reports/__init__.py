"""A sweep for people to read: sentences, tables, charts and the model card."""
