"""Code that runs inside the sandbox. It must not import anything from outside this folder but the standard library."""
