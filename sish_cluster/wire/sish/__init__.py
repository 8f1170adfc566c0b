"""Generated from protos/ by scripts/generate-wire; do not edit."""
