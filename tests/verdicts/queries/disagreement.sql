-- DuckDB: uploads that the methods disagree on
SELECT round, client_id, list(method) FILTER (NOT accepted) AS rejected_by
FROM 'verdicts.parquet'
GROUP BY round, client_id
HAVING bool_or(accepted) AND NOT bool_and(accepted)
ORDER BY round, client_id;
