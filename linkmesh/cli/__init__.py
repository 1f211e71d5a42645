"""The command line `linkmesh`: one file per noun, heavy imports inside the command that needs them."""
