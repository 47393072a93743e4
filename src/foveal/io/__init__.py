"""Pictures and bytes from and to the world outside: files, pipes, Pillow."""
