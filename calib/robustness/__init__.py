"""How far attacks get at a deployed bundle: configurations, attacks by tier, rates with intervals, and a verdict."""
