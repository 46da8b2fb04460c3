ansible_host: 10.0.0.7
