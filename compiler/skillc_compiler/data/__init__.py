"""Generated project skills and questions about them, for training and for evaluation."""
