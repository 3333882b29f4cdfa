"""What people say about parts: who is asked, the queue, opinions, figures, and data sets of reviewed parts."""
