"""What any project would need: the run folder, its log and files, processes, the precision, the launcher."""
