"""A lab of real hosts on one machine: real apt, dnf, sshd and systemd, in namespaces that end with the test run."""
