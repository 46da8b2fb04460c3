"""The words every part of the agent speaks; standard library only, no input or output."""
