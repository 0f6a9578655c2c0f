"""Centre and spread of each series' number over all measurements of adults in a unit.

The median, and the distances from it to the 2.5 % and to the 97.5 % quantile in standard deviations
of a normal number. They follow from the other parameters, but only by simulation: after a change
``python -m benchmarks.simulator --scale`` prints this table anew.
"""

SCALE: dict[str, tuple[float, float, float]] = {
    "Heart Rate": (0.282, 1.027, 1.276),
    "Systolic blood pressure": (-0.205, 1.209, 1.061),
    "Diastolic blood pressure": (-0.304, 1.655, 1.299),
    "Respiratory rate": (0.23, 0.992, 1.211),
    "Oxygen saturation": (-0.207, 1.149, 0.922),
    "Temperature": (0.058, 0.851, 0.896),
    "Fraction inspired oxygen": (0.696, 1.009, 1.384),
    "Glucose": (0.159, 0.83, 0.95),
    "Creatinine": (0.182, 0.88, 1.331),
    "Blood urea nitrogen": (0.242, 1.123, 1.746),
    "Potassium": (0.198, 0.799, 0.917),
    "Chloride": (0.003, 0.897, 0.853),
    "Bicarbonate": (-0.126, 1.065, 0.985),
    "Anion gap": (0.295, 1.07, 1.463),
    "Calcium": (-0.168, 0.889, 0.774),
    "Phosphate": (0.189, 0.882, 1.078),
    "Hematocrit": (-0.073, 0.813, 0.789),
    "Mean corpuscular volume": (0.027, 0.868, 0.892),
    "Platelets": (-0.088, 0.944, 0.923),
    "White blood cell count": (0.182, 0.833, 0.968),
    "Neutrophils": (0.143, 0.869, 0.99),
    "Lymphocytes": (-0.21, 1.4, 1.184),
    "Monocytes": (-0.063, 0.749, 0.728),
    "Basophils": (-0.005, 0.66, 0.652),
    "Prothrombin time": (0.141, 0.947, 1.014),
    "Alanine aminotransferase": (0.168, 0.962, 1.022),
    "Asparate aminotransferase": (0.299, 1.345, 1.62),
    "Alkaline phosphate": (0.059, 1.044, 1.157),
    "Bilirubin": (0.097, 1.005, 1.109),
    "Albumin": (-0.109, 0.973, 0.954),
    "Lactate": (0.527, 0.984, 1.49),
    "Partial pressure of carbon dioxide": (0.315, 0.811, 0.985),
    "pH": (-0.998, 1.965, 1.41),
    "Consciousness": (-0.288, 1.47, 0.985),
    "Capillary refill rate": (0.144, 0.795, 0.997),
    "Weight": (-0.003, 0.995, 1.006),
    "Height": (0.007, 1.005, 1.017),
    "Urine": (-0.185, 1.141, 0.995),
}
