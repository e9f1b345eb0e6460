"""Language-guided temporal localisation in endoscopic surgery with video-text models."""
