"""What the commands of `foveal.cli` share: options, jobs over several files, and what they print."""
