"""Kept predictions on pictures that no member was trained on: scored, chosen from, calibrated on and explained."""
