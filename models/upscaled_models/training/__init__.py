"""How the default models are trained: pictures, degradations, losses, the loop and the export."""
