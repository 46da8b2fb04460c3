"""The stand-in cluster that `hsm-agent demo` and the tests on real hosts run against: files and programs."""
