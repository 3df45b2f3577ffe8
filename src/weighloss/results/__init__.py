"""What a sweep measured: points, files, requirements and intervals, as plain data without a training loop."""
