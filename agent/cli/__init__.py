"""What a person types: parse, call one function of the application, render, exit."""
