"""Problems of PythonFunction: functions written by this project, and what builds the data files from them."""
