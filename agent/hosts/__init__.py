"""The adapters to a machine: each is a Host of `agent.core.host`, and nothing else changes anything."""
