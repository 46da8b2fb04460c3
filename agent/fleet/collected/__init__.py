"""The reports that hosts leave in one place, side by side: who is proven, who differs, and who is silent."""
