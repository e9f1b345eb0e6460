"""What is asked of videos and how it is judged."""
