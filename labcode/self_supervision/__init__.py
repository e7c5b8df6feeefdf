"""Part: self-supervised representation learning."""
