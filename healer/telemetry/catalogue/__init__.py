"""Every signal, what it means, and how exporters spell it."""
