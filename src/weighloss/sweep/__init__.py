"""Many fine-tunes: settings, legs, resuming, searching, and the backends that run the legs."""
