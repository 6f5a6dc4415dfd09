"""The Client: what is asked, how far it reads ahead, what is done with each answer. Nothing here serves."""
