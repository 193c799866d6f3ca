"""How good lists were: any log of decisions or file of lists against what people did next."""
