"""What is particular to AWS CloudHSM: its paths, CA rules, configuration files and the words of its tools."""
