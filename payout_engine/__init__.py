"""Bulk mobile-money payouts that are never paid twice and never lost."""
