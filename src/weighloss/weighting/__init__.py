"""Tasks, labels, class weights and losses: tensors and counts, no Trainer."""
