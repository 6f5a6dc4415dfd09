"""What turns a Runner into bytes, and bytes back into a Runner. Runners are elsewhere; neither imports the other."""
