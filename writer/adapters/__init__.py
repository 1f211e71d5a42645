"""The world, as writer's ports want it."""
