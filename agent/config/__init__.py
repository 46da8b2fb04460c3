"""What is asked for: options in their three spellings, and the desired state that they make."""
