"""First Light: a physics-informed twin of a car, every tick of it on film. See docs/first_light.md."""
