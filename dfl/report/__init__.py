"""What a person looks at: tables, plots and Weights & Biases, and the callbacks that make them."""
