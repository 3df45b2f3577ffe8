"""One fine-tune with a weighted loss: the arguments, the trainer and pushing to the Hub."""
